"""What a process that trains needs in its environment before it imports anything; this module itself imports nothing."""


def environment(threads: int, use_gpu: bool) -> dict[str, str]:
    """Return the variables: threads, no download, no kernels for a GPU that is not used."""
    variables = {"OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    return variables if use_gpu else variables | {"DS_ACCELERATOR": "cpu"}
