"""Command lines of tests, and what they leave."""


def saved(pipe, tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights") / "pipeline"
    pipe.save_pretrained(folder)
    return folder


def command(prompts, weights, out, *more) -> list[str]:
    return ["sample", str(prompts), "--weights", str(weights), "--out", str(out), "--steps", "3", *more]


def content(folder) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}
