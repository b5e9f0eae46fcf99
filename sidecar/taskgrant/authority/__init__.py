"""Who may grant what: the issuing and revoking of task grants."""
