CREATE VIRTUAL TABLE spell_texts USING fts5 (name, text, content = 'spells', content_rowid = 'id');

INSERT INTO spell_texts (rowid, name, text) SELECT id, name, text FROM spells;

CREATE TRIGGER find_new_spells AFTER INSERT ON spells BEGIN
    INSERT INTO spell_texts (rowid, name, text) VALUES (new.id, new.name, new.text);
END;
