"""The cell map: up to a million cells drawn in the browser, selected on the server.

The browser part lies in `frontend/`; its bundle is committed, so that users need no Node. What it
is sent and what it sends back is in docs/cell-map.md.
"""
