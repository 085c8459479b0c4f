"""scikit-learn on our workers finds what it finds without any, and on joblib's own."""

from __future__ import annotations

import os

import numpy as np
import pytest
from scripts import script

joblib = pytest.importorskip("joblib")
datasets = pytest.importorskip("sklearn.datasets")
ensemble = pytest.importorskip("sklearn.ensemble")
linear = pytest.importorskip("sklearn.linear_model")
selection = pytest.importorskip("sklearn.model_selection")

import parallelkit.joblib  # noqa: E402  now that it is sure to be found

pytestmark = pytest.mark.slow


class Telling(linear.LogisticRegression):
    """A model that tells where it was fitted."""

    def fit(self, x, y):
        self.pid_ = os.getpid()
        return super().fit(x, y)


def on(backend, function):
    with joblib.parallel_config(backend, n_jobs=2):
        return function()


def check_same(function):
    parallelkit.joblib.register()
    assert np.array_equal(on("parallelkit", function), on("sequential", function))


def test_a_random_forest():
    x, y = datasets.make_classification(2000, 30, random_state=1)

    def probabilities():
        forest = ensemble.RandomForestClassifier(20, random_state=0, n_jobs=2).fit(x, y)
        return forest.predict_proba(x)

    check_same(probabilities)


def test_a_search_over_forests_that_are_parallel_themselves():
    x, y = datasets.load_iris(return_X_y=True)

    def scores():
        grid = {"n_estimators": [3, 5], "max_depth": [1, 3]}
        forest = ensemble.RandomForestClassifier(random_state=0, n_jobs=2)
        return (
            selection.GridSearchCV(forest, grid, cv=3, n_jobs=2)
            .fit(x, y)
            .cv_results_["mean_test_score"]
        )

    check_same(scores)


def test_cross_validation():
    x, y = datasets.load_iris(return_X_y=True)
    model = linear.LogisticRegression(max_iter=1000)

    check_same(lambda: selection.cross_val_score(model, x, y, cv=5, n_jobs=-1))


def test_a_model_of_the_script_is_fitted_in_workers():
    x, y = datasets.load_iris(return_X_y=True)
    parallelkit.joblib.register()

    def fitted():
        found = selection.cross_validate(Telling(max_iter=1000), x, y, cv=4, return_estimator=True)
        return {each.pid_ for each in found["estimator"]}

    assert os.getpid() not in on("parallelkit", fitted)


def test_all_is_as_on_loky(tmp_path):
    said = script(
        """
        import joblib, parallelkit.joblib
        from sklearn.datasets import load_iris
        from sklearn.ensemble import RandomForestClassifier
        from sklearn.model_selection import GridSearchCV, cross_val_score

        x, y = load_iris(return_X_y=True)
        forest = RandomForestClassifier(10, random_state=0, n_jobs=2)

        def found():
            search = GridSearchCV(forest, {"max_depth": [1, 3]}, cv=3, n_jobs=2).fit(x, y)
            scores = cross_val_score(forest, x, y, cv=3, n_jobs=2)
            return (
                search.cv_results_["mean_test_score"].tolist(),
                scores.tolist(),
                forest.fit(x, y).predict_proba(x).tolist(),
            )

        parallelkit.joblib.register()
        results = []
        for backend in ("parallelkit", "loky"):
            with joblib.parallel_config(backend):
                results.append(found())
        print(results[0] == results[1])
        """,
        where=tmp_path,
    )

    assert said == "True\n"
