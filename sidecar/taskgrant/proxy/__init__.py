"""The per-call pipeline: dialled → parsed → bound → decided → credential → use → relayed; a module a step."""
