CREATE INDEX measurements_by_name ON measurements (name, at);

CREATE VIEW daily AS
SELECT name, date(at) AS day, count(*) AS measured, avg(value) AS average
FROM measurements
GROUP BY name, day;
