"""What the Python stack writes and reads, as JSON: the member in the page is held against the same bytes.

    python -m tests.vectors write      after a change of the wire
    python -m tests.vectors            say what is no longer current

In every file: bytes are hexadecimal text, whole numbers beyond 2**53 are decimal text, and a case has `read` (what a reader
makes of `bytes`), or `refused: true` (it must throw its one declared error). `README.md` says what is in which file.
"""
