DROP TABLE items;
DROP TABLE heroes;
