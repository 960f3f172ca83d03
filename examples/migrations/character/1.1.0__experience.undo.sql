DROP TRIGGER experience_grows;
ALTER TABLE heroes DROP COLUMN experience;
