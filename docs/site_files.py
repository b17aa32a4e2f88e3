"""A hook of mkdocs: pages link to figures under ``results/``, which is outside ``docs/``.

On the forge ``../../results/NAME/x.png`` is right as it is. In the site it is ``files/NAME/x.png``.
"""

from pathlib import Path

from mkdocs.structure.files import File, Files

RESULTS = Path(__file__).parents[1] / "results"


def on_files(files: Files, config: object) -> Files:
    """Add every figure of the committed results folders to the site."""
    for figure in sorted(RESULTS.glob("*/*.png")):
        name = f"files/{figure.relative_to(RESULTS).as_posix()}"
        files.append(File.generated(config, name, abs_src_path=str(figure)))  # type: ignore
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point a page's links to the copied figures."""
    return markdown.replace("](../../results/", "](../files/")
