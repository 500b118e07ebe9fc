"""CSV imports: an item for each row of a CSV file, and a verdict on each row.

`encodings` and `reading` turn bytes into records, `wire/csv_rows.py` records into rows; `requests` takes a file in,
goes on with one that stopped and cleans up, `importing` is the job, `results` keeps the verdicts.
"""
