"""What can go wrong in the recipe, as one type with a sentence for whoever runs it."""


class RecipeError(Exception):
    """A command of the recipe cannot do its work: what was needed, and what was found."""
