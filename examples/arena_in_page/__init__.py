"""The arena as Python in a page: its world, network and bots as they are, a canvas for a window, and one `await` a frame.

python -m examples.arena_in_page.build DIR PYODIDE WHEEL...
psyne-mesh serve --web DIR
"""
