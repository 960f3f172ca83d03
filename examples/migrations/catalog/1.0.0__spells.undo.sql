DROP TABLE spells;
