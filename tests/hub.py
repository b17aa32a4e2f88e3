"""What a Hub cache may hold: weights, or something else under their name."""

from pathlib import Path


def publish(cache, hub_id, content, filename="model.safetensors"):
    """Put a file where huggingface_hub keeps what it downloaded from a repository."""
    repository = cache / f"models--{hub_id.replace('/', '--')}"
    snapshot = repository / "snapshots" / f"{1:040x}"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(snapshot.name)
    (snapshot / filename).write_bytes(content)
    return cache


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return Path.touch, (self.marker,)
