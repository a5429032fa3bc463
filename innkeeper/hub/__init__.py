"""The Hugging Face hub: finding models, knowing them before the download, downloading them."""
