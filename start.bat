@echo off
rem Sets Innkeeper up at the first start, then runs "innkeeper COMMAND args" ("up" when none is named).
setlocal
for %%P in ("py -3" python python3) do (
    %%~P -c "import sys; sys.exit(sys.version_info < (3, 11))" >nul 2>&1
    if not errorlevel 1 (
        %%~P -I "%~dp0installer" %*
        exit /b
    )
)
echo innkeeper: needs Python 3.11 or newer, and found none; run: winget install Python.Python.3.12 1>&2
exit /b 1
