"""The views for people: pictures, pages, plots, profiles, and reports of memory and plans."""
