-- One row per bridge network. The document is banger.Network as JSON.
CREATE TABLE network (
    name     TEXT PRIMARY KEY,
    document TEXT NOT NULL
) STRICT;
