-- One row per VM. The document is banger.VM as JSON; the columns beside it are
-- what the database itself must guarantee or find.
CREATE TABLE vm (
    id        TEXT PRIMARY KEY,
    name      TEXT NOT NULL UNIQUE,
    slot      INTEGER NOT NULL UNIQUE, -- small number; uid and addresses of the VM derive from it
    committed INTEGER NOT NULL,        -- 0 until creation has succeeded; such rows are undone at start
    document  TEXT NOT NULL
) STRICT;
