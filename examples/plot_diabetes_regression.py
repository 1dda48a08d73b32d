"""
Regression on a small table
===========================

442 patients, ten measurements each, and the progression of their diabetes a year later. The target is standardised
for training and predictions come back in its own units.
"""

# %%
# A network and a linear model
# ----------------------------
#
# Ridge is the model to beat: with few rows and a noisy target, a straight line is hard to improve on. Both models
# see the same folds, and every prediction below is for a row that the model was not fitted on.

import numpy as np
from sklearn.datasets import load_diabetes
from sklearn.linear_model import RidgeCV
from sklearn.metrics import mean_absolute_error, r2_score
from sklearn.model_selection import KFold, cross_val_predict

from skdl import MLPRegressor

X, y = load_diabetes(return_X_y=True, as_frame=True, scaled=False)
folds = KFold(5, shuffle=True, random_state=0)
models = {
    "RidgeCV": RidgeCV(alphas=np.logspace(-3, 3, 13)),
    "MLPRegressor": MLPRegressor(random_state=0),
    "MLPRegressor, restrained": MLPRegressor(
        hidden_layer_sizes=(32,), dropout=0.3, weight_decay=0.1, learning_rate=1e-3, max_epochs=40, random_state=0
    ),
}
predictions = {name: cross_val_predict(model, X, y, cv=folds) for name, model in models.items()}
for name, prediction in predictions.items():
    print(f"{name:25} R2 {r2_score(y, prediction):.3f}   mean error {mean_absolute_error(y, prediction):.1f}")
