-- +goose Up
CREATE TABLE campaigns (
    id INTEGER PRIMARY KEY,
    title TEXT NOT NULL,
    started_on TEXT
);

CREATE TABLE sessions (
    id INTEGER PRIMARY KEY,
    campaign_id INTEGER NOT NULL REFERENCES campaigns (id) ON DELETE CASCADE,
    played_on TEXT NOT NULL,
    summary TEXT NOT NULL DEFAULT ''
);

CREATE TABLE quests (
    id INTEGER PRIMARY KEY,
    title TEXT NOT NULL,
    hero INTEGER
);

-- +goose Down
DROP TABLE quests;
DROP TABLE sessions;
DROP TABLE campaigns;
