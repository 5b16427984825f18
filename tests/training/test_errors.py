from engine.errors import EngineError
from training.errors import RecipeError


def test_what_the_recipe_lacks_is_no_fault_of_the_engine() -> None:
    assert not issubclass(RecipeError, EngineError)
