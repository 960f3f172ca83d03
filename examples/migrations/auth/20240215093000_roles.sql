-- migrate:up
CREATE TABLE roles (
    name TEXT PRIMARY KEY,
    description TEXT NOT NULL
) WITHOUT ROWID;

INSERT INTO roles VALUES ('player', 'plays a hero'), ('master', 'leads a campaign');

ALTER TABLE users ADD COLUMN role TEXT NOT NULL DEFAULT 'player';

-- migrate:down
ALTER TABLE users DROP COLUMN role;
DROP TABLE roles;
