"""What a round of Network Adjustment did to each site."""

from typing import Any

Record = dict[str, Any]

CHANGES = (
    "chosen to widen",
    "chosen to narrow",
    "wider by the fit to the budget",
    "narrower by the fit to the budget",
    "unchanged",
    "not used: the search went back",
    "gone with its block",
)


def site_changes(record: Record) -> tuple[list[int], ...]:
    """The sites of each of `CHANGES`, as a line of rounds.jsonl tells them.

    The step of the chosen sites changes the MACs; the fit to the budget then moves the others. A
    round whose network was given up is followed by one that its FURs have no part in.
    """
    sites = [site for site, width in enumerate(record["channels"]) if width]  # see `report.grid`
    if record.get("next_parent", record["round"]) != record["round"]:
        return [], [], [], [], [], sites, []
    gone = [site for site in sites if not record["next_channels"][site]]
    wider, narrower = ([s for s in record[k] if s not in gone] for k in ("increased", "decreased"))
    chosen = {*wider, *narrower, *gone}
    moved = [b - a for a, b in zip(record["channels"], record["next_channels"], strict=True)]
    rest = [site for site in sites if site not in chosen]
    return (
        wider,
        narrower,
        [site for site in rest if moved[site] > 0],
        [site for site in rest if moved[site] < 0],
        [site for site in rest if moved[site] == 0],
        [],
        gone,
    )
