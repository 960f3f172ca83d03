CREATE TABLE spells (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    level INTEGER NOT NULL CHECK (level BETWEEN 0 AND 9),
    school TEXT NOT NULL,
    text TEXT NOT NULL
);

INSERT INTO spells (name, level, school, text) VALUES
    ('Light', 0, 'evocation', 'An object sheds bright light; it ends after an hour.'),
    ('Shield', 1, 'abjuration', 'A barrier of force appears.');
