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
)


def site_changes(record: Record) -> tuple[list[int], ...]:
    """The sites of each of `CHANGES`, as a line of rounds.jsonl tells them.

    The step of the chosen sites changes the MACs; the fit to the budget then moves the others. A
    round whose network was given up is followed by one that its FURs have no part in.
    """
    sites = range(len(record["channels"]))
    if record.get("next_parent", record["round"]) != record["round"]:
        return [], [], [], [], [], list(sites)
    chosen = {*record["increased"], *record["decreased"]}
    moved = [b - a for a, b in zip(record["channels"], record["next_channels"], strict=True)]
    rest = [site for site in sites if site not in chosen]
    return (
        record["increased"],
        record["decreased"],
        [site for site in rest if moved[site] > 0],
        [site for site in rest if moved[site] < 0],
        [site for site in rest if moved[site] == 0],
        [],
    )
