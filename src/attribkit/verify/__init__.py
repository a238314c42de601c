"""`attribkit verify`: small real programs, one for each hop, run on the versions that are installed here."""
