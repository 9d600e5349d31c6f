"""vlmend: audit vision-language models, mend them at inference time, and prove the mend."""
