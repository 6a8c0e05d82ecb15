"""What people look at: pictures, pages, plots, profiles, and reports of memory and plans."""
