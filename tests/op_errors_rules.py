# SPDX-License-Identifier: BSD-3-Clause
"""Error inputs of the mining rules, whichever op takes their keywords."""

from __future__ import annotations

import torch

from error_inputs import NAN, type_error, value_error

_LIST_MINING = (
    "must be one of 'hard', 'semihard', 'all', 'semihard_all', 'hard_all', 'easy_all', "
    "'easy_hard', 'distance_weighted', 'random'; got"
)
_STRATEGIES = "must be one of 'easy', 'hard', 'semihard', 'all'; got"
_HALF = {"mining": "semihard"}
_SETS = {"mining": "semihard_all"}
_SIDES = "positive_mining and negative_mining must not be 'semihard' with 'semihard' or 'all'; got"

WORD_ERRORS = [
    value_error("mine_triplets", f"mining {_LIST_MINING} 'soft'.", mining="soft"),
    value_error("mine_triplets", f"mining {_LIST_MINING} None.", mining=None),
    value_error("triplet_loss", f"mining {_LIST_MINING[:-5]}, 'soft'; got 'easy'.", mining="easy"),
    value_error(
        "mine_triplets",
        "fallback must be one of 'farthest', 'drop'; got 'nearest'.",
        fallback="nearest",
    ),
    value_error("triplet_loss", f"positive_mining {_STRATEGIES} 'soft'.", positive_mining="soft"),
    value_error("triplet_loss", f"negative_mining {_STRATEGIES} None.", negative_mining=None),
    value_error(
        "mine_triplets",
        f"{_SIDES} 'semihard' and 'semihard'.",
        mining="easy_hard",
        positive_mining="semihard",
    ),
    value_error(
        "triplet_loss",
        f"{_SIDES} 'all' and 'semihard'.",
        mining="easy_hard",
        positive_mining="all",
    ),
    type_error("triplet_loss", "detach_weights must be True or False; got 0.", detach_weights=0),
]

# An option that the rule does not read.
READER_ERRORS = [
    value_error("triplet_loss", "fallback needs mining='semihard'; got 'hard'.", fallback="drop"),
    value_error(
        "mine_triplets",
        "hardness needs mining='semihard'; got 'semihard_all'.",
        mining="semihard_all",
        hardness=torch.tensor(0.5),
    ),
    value_error(
        "mine_triplets",
        "mining_margin needs mining='semihard_all', 'hard_all' or 'easy_all'; got 'all'.",
        mining="all",
        mining_margin=1.0,
    ),
    value_error(
        "triplet_loss",
        "negative_mining needs mining='easy_hard'; got 'semihard'.",
        mining="semihard",
        negative_mining="hard",
    ),
    value_error("triplet_loss", "n_negatives needs mining='random'; got 'hard'.", n_negatives=2),
    value_error(
        "mine_triplets",
        "generator needs mining='distance_weighted' or 'random'; got 'hard'.",
        generator=torch.Generator(),
    ),
    value_error("triplet_loss", "temperature needs mining='soft'; got 'hard'.", temperature=0.5),
    value_error(
        "triplet_loss", "detach_weights needs mining='soft'; got 'hard'.", detach_weights=True
    ),
    value_error(
        "triplet_loss",
        "invalid='count' needs mining='hard', 'semihard' or 'all'; got 'easy_hard'.",
        mining="easy_hard",
        invalid="count",
    ),
]

NUMBER_ERRORS = [
    type_error(
        "mine_triplets",
        "hardness must be a number, a tensor, a callable or None; got str.",
        **_HALF,
        hardness="hard",
    ),
    value_error("mine_triplets", "hardness must lie in [0, 1]; got 1.5.", **_HALF, hardness=1.5),
    value_error(
        "triplet_loss", "hardness must lie in [0, 1]; got -0.25.", **_HALF, hardness=lambda: -0.25
    ),
    value_error(
        "triplet_loss",
        "hardness must lie in [0, 1]; got 2.0.",
        **_HALF,
        hardness=torch.tensor(2.0),
    ),
    value_error(
        "mine_triplets",
        "hardness must have shape (); got (6,).",
        **_HALF,
        hardness=torch.full((6,), 0.5),
    ),
    value_error("triplet_loss", "hardness must be finite; got nan.", **_HALF, hardness=NAN),
    value_error(
        "mine_triplets",
        "mining_margin must have shape () or (6,), one per anchor; got (3,).",
        **_SETS,
        mining_margin=torch.ones(3),
    ),
    value_error(
        "triplet_loss",
        "mining_margin must be finite; got inf.",
        **_SETS,
        mining_margin=float("inf"),
    ),
    value_error(
        "mine_triplets",
        "n_negatives must be an integer above 0; got 0.",
        mining="random",
        n_negatives=0,
    ),
    value_error(
        "triplet_loss",
        "n_negatives must be an integer above 0; got 1.5.",
        mining="random",
        n_negatives=1.5,
    ),
    type_error(
        "mine_triplets",
        "generator must be a torch.Generator; got int.",
        mining="random",
        generator=0,
    ),
    value_error(
        "triplet_loss",
        "temperature must be finite and above 0; got 0.",
        mining="soft",
        temperature=0,
    ),
    type_error(
        "triplet_loss",
        "temperature must be a number; got Tensor.",
        mining="soft",
        temperature=torch.tensor(1.0),
    ),
]

RULE_ERRORS = [*WORD_ERRORS, *READER_ERRORS, *NUMBER_ERRORS]
