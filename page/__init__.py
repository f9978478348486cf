"""Pages that stand on their own: one HTML file with its style and inline SVG, nothing fetched from
elsewhere.
"""
