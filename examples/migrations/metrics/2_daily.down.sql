DROP VIEW daily;
DROP INDEX measurements_by_name;
