"""The papers' tables and figures by one command each: how large, what runs, what is kept."""
