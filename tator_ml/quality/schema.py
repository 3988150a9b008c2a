"""The tables of ``quality.sqlite``. All but dismissals and comparisons can be made anew from Label Studio."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS annotations (
    project INTEGER NOT NULL, annotation INTEGER NOT NULL, task INTEGER NOT NULL, annotator INTEGER,
    created REAL NOT NULL, updated REAL NOT NULL, lead_seconds REAL, parent INTEGER, result BLOB NOT NULL,
    week TEXT NOT NULL, objects INTEGER NOT NULL DEFAULT 0, assisted INTEGER NOT NULL DEFAULT 0,
    comparison REAL, drawn INTEGER,
    PRIMARY KEY (project, annotation)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS annotations_by_task ON annotations (project, task);
CREATE INDEX IF NOT EXISTS annotations_by_pace
    ON annotations (project, week, assisted, comparison, drawn, annotator, lead_seconds, objects);
CREATE TABLE IF NOT EXISTS predictions (
    project INTEGER NOT NULL, prediction INTEGER NOT NULL, task INTEGER NOT NULL, created REAL NOT NULL,
    version TEXT NOT NULL, result BLOB NOT NULL,
    PRIMARY KEY (project, prediction)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS pictures (
    project INTEGER NOT NULL, task INTEGER NOT NULL, image_name TEXT NOT NULL, item_index INTEGER NOT NULL,
    address TEXT NOT NULL,
    PRIMARY KEY (project, task, image_name, item_index)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS outcomes (
    id INTEGER PRIMARY KEY, project INTEGER NOT NULL, task INTEGER NOT NULL, annotation INTEGER, annotator INTEGER,
    week TEXT NOT NULL, at REAL NOT NULL, assist TEXT NOT NULL, version TEXT NOT NULL, label TEXT NOT NULL,
    final_label TEXT, outcome TEXT NOT NULL, iou REAL, image TEXT, suggested BLOB NOT NULL, final BLOB
);
CREATE INDEX IF NOT EXISTS outcomes_by_task ON outcomes (project, task);
CREATE INDEX IF NOT EXISTS outcomes_by_class ON outcomes (project, label, outcome, iou);
CREATE TABLE IF NOT EXISTS tallies (
    project INTEGER NOT NULL, week TEXT NOT NULL, version TEXT NOT NULL, label TEXT NOT NULL, assist TEXT NOT NULL,
    annotator INTEGER NOT NULL, outcome TEXT NOT NULL, count INTEGER NOT NULL, measured INTEGER NOT NULL,
    iou REAL NOT NULL,
    PRIMARY KEY (project, week, version, label, assist, annotator, outcome)
) WITHOUT ROWID;
CREATE TRIGGER IF NOT EXISTS outcome_came AFTER INSERT ON outcomes BEGIN
    INSERT INTO tallies VALUES (
        new.project, new.week, new.version, new.label, new.assist, coalesce(new.annotator, 0), new.outcome, 1,
        new.iou IS NOT NULL, coalesce(new.iou, 0)
    ) ON CONFLICT DO UPDATE SET
        count = count + 1, measured = measured + excluded.measured, iou = iou + excluded.iou;
END;
CREATE TRIGGER IF NOT EXISTS outcome_went AFTER DELETE ON outcomes BEGIN
    UPDATE tallies SET
        count = count - 1, measured = measured - (old.iou IS NOT NULL), iou = iou - coalesce(old.iou, 0)
    WHERE project = old.project AND week = old.week AND version = old.version AND label = old.label
        AND assist = old.assist AND annotator = coalesce(old.annotator, 0) AND outcome = old.outcome;
    DELETE FROM tallies
    WHERE project = old.project AND week = old.week AND version = old.version AND label = old.label
        AND assist = old.assist AND annotator = coalesce(old.annotator, 0) AND outcome = old.outcome AND count <= 0;
END;
CREATE TABLE IF NOT EXISTS comparisons (
    project INTEGER NOT NULL, since REAL NOT NULL, share REAL NOT NULL, seed INTEGER NOT NULL, ended REAL,
    PRIMARY KEY (project, since)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS people (person INTEGER PRIMARY KEY, name TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS readings (project INTEGER PRIMARY KEY, at REAL NOT NULL);
CREATE TABLE IF NOT EXISTS doubts (
    id INTEGER PRIMARY KEY, project INTEGER NOT NULL, annotation INTEGER NOT NULL, task INTEGER NOT NULL,
    region TEXT NOT NULL, label TEXT NOT NULL, said TEXT NOT NULL, given REAL NOT NULL, probability REAL NOT NULL,
    head TEXT NOT NULL, image TEXT, x0 REAL NOT NULL, y0 REAL NOT NULL, x1 REAL NOT NULL, y1 REAL NOT NULL,
    width INTEGER NOT NULL, height INTEGER NOT NULL, at REAL NOT NULL,
    UNIQUE (project, annotation, region)
);
CREATE INDEX IF NOT EXISTS doubts_by_order ON doubts (project, given);
CREATE TABLE IF NOT EXISTS dismissals (
    project INTEGER NOT NULL, annotation INTEGER NOT NULL, region TEXT NOT NULL, label TEXT NOT NULL,
    said TEXT NOT NULL, by TEXT NOT NULL, at REAL NOT NULL,
    PRIMARY KEY (project, annotation, region, label, said)
) WITHOUT ROWID;
"""
