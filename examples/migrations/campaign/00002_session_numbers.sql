-- +goose Up
ALTER TABLE sessions ADD COLUMN number INTEGER NOT NULL DEFAULT 0;

-- +goose StatementBegin
CREATE TRIGGER number_sessions AFTER INSERT ON sessions
BEGIN
    UPDATE sessions
    SET number = (SELECT count(*) FROM sessions WHERE campaign_id = new.campaign_id)
    WHERE id = new.id;
END;
-- +goose StatementEnd

-- +goose Down
DROP TRIGGER number_sessions;
ALTER TABLE sessions DROP COLUMN number;
