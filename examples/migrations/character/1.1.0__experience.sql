ALTER TABLE heroes ADD COLUMN experience INTEGER NOT NULL DEFAULT 0;

-- A hero never forgets: experience only grows.
CREATE TRIGGER experience_grows BEFORE UPDATE OF experience ON heroes
WHEN new.experience < old.experience
BEGIN
    SELECT raise(ABORT, 'experience; never shrinks');
END;
