"""A recommender that lives: each user's memory kept, advanced by every event, and answered from at any moment."""
