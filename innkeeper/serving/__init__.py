"""Use cases, free of HTTP: which model runs (``Models``) and what it generates (``Generate``).

How the composition root builds it::

    models = Models(home / "models", EngineDefaults(num_ctx=8192), log_folder=home / "logs")
    generate = Generate(models)
    job = models.start_load_file(path)     # a path that the user gave on the command line
    async for state in job.watch():        # any number of watchers; ends with the job
        ...
    facts = await job.wait()               # ModelFacts, or raises what the load failed with
    collection = Collection(models, home / "models")
    app = create_app(generate, models, collection)    # innkeeper.api
    ...
    await models.close()                   # ends the engine process; safe to call twice

Requests name a model only through ``models.resolve`` and ``models.start_load``, which look the name
up in ``models.entries()``; no path that a request holds is ever opened.
"""

from innkeeper.serving.collection import Collection, PullJob, PullState, Wanted
from innkeeper.serving.embed import Embed, Embedded
from innkeeper.serving.engine_settings import EngineDefaults, Overrides
from innkeeper.serving.generate import Generate
from innkeeper.serving.jobs import LoadJob, LoadState
from innkeeper.serving.leaving import KeepRules
from innkeeper.serving.loaded import LoadedModel
from innkeeper.serving.loras import Loras, lora_names
from innkeeper.serving.models import Models
from innkeeper.serving.names import ModelEntry

__all__ = [
    "Collection",
    "Embed",
    "Embedded",
    "EngineDefaults",
    "Generate",
    "KeepRules",
    "LoadJob",
    "LoadState",
    "LoadedModel",
    "Loras",
    "ModelEntry",
    "Models",
    "Overrides",
    "PullJob",
    "PullState",
    "Wanted",
    "lora_names",
]
