"""The tables of docs/duplicates.md, from the JSON under benchmarks/results and nothing else.

python -m benchmarks.pages.duplicates
"""

from __future__ import annotations

from benchmarks.lib import common
from benchmarks.lib.markdown import fill, made_on, row, table_head
from benchmarks.pages.readme import load

PAGE = common.TOP / "docs" / "duplicates.md"
NAMES = {"corel5k": "Corel-5k", "cifar10": "CIFAR-10"}


def write() -> None:
    """Write the tables into the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"-> {PAGE}")


def page(text: str) -> str:
    """Return the page's text with the tables between its markers made anew."""
    results = load("planted_pictures_*.json")
    return fill(text, {"planted": "\n\n".join(map(planted, results)), "indexed": indexed()})


def planted(result) -> str:
    """What is found of copies without an encoder, a program a column."""
    programs = [program for program in result["programs"] if "found" in program]
    lines = table_head(["found", *(program["program"] for program in programs)])
    for kind in result["kinds"]:
        lines.append(row([kind, *(percent(program["found"][kind]) for program in programs)]))
    means = [sum(program["found"].values()) / len(result["kinds"]) for program in programs]
    lines.append(row(["**of all copies**", *(f"**{percent(mean)}**" for mean in means)]))
    counts = {"pairs": "pairs", "wrong pairs": "wrong_pairs", "wrong pairs of the data": "wrong_pairs_of_the_data"}
    for shown, name in counts.items():
        lines.append(row([shown, *(f"{program[name]:,}" for program in programs)]))
    right = [1 - program["wrong_pairs"] / max(program["pairs"], 1) for program in programs]
    lines.append(row(["**of the pairs are right**", *(f"**{percent(share)}**" for share in right)]))
    for shown, runs in {
        "photographs a second of one core": [program.get("without_copies", program) for program in programs],
        "with the copies": programs,
    }.items():
        lines.append(row([shown, *(f"{run['photographs'] / run['cpu_seconds']:,.0f}" for run in runs)]))
    name = NAMES[result["benchmark"].rpartition("_")[2]]
    versions = ", ".join(f"{name} {version}" for name, version in result["others"].items())
    count = f"{result['photographs']:,} photographs, {programs[0]['photographs']:,} with the copies"
    made = f"{versions}. {made_on([result])} Seed {result['seed']}."
    return f"**{name}**, {count}:\n\n" + "\n".join(lines) + f"\n\nThe time is that from an empty cache on. {made}"


def percent(share) -> str:
    """A share in percent: 100% only where it is one."""
    return "100%" if share == 1 else f"{min(100 * share, 99.9):.3g}%"


def indexed() -> str:
    """What is found of copies in an index, by the default radius and distances."""
    lines, shown = (
        [],
        [("am-vggh", "pixels", 6), ("am-vggh", "values", 0.3), ("itq", "pixels", 6), ("itq", "values", 0.3)],
    )
    results = load("planted_duplicates_cifar10_64px.json")
    for result in results:
        kinds = result["kinds"]
        lines = [f"| codes | compared | {' | '.join(kinds)} | other pairs |", "| --- " * (len(kinds) + 3) + "|"]
        for name, by, distance in shown:
            model = next(model for model in result["models"] if model["model"] == name)
            wanted = (by, distance, model["bits"] // 6)
            pairs = next(p for p in model["pairs"] if (p["by"], p["distance"], p["radius"]) == wanted)
            found = " | ".join(f"{100 * pairs['found'][kind]:.0f}%" for kind in kinds)
            lines.append(f"| {name} | {by}, {distance} | {found} | {pairs['pairs_of_the_data']:,} |")
    return "\n".join(lines) + f"\n\n{made_on(results)} Seed 0."


if __name__ == "__main__":
    write()
