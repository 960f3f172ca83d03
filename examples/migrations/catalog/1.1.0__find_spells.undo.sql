DROP TRIGGER find_new_spells;
DROP TABLE spell_texts;
