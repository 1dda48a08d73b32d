"""
Digits, from images to mistakes
===============================

1,797 handwritten digits of 8 x 8 pixels. A convolutional network takes the images as they are, and shows which pixels
led to its few mistakes.
"""

# %%
# The images go in
# ----------------
#
# The images are an array ``(n, 8, 8)``, not flattened and not scaled: the network standardises pixels by its training
# images, and shifts, rotates and zooms them a little, differently in each step. For images this small the default
# network has two blocks.

from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from skdl import CNNClassifier

digits = load_digits()
X_train, X_test, y_train, y_test = train_test_split(
    digits.images, digits.target, test_size=0.4, stratify=digits.target, random_state=0
)
network = CNNClassifier(max_epochs=15, random_state=0).fit(X_train, y_train)

print(f"{X_train.shape} in, of type {X_train.dtype}; moved by {network.augmentation_.settings()}")
print(f"accuracy on {len(X_test)} held-out images: {network.score(X_test, y_test):.3f}")

# %%
# Which are taken for which
# -------------------------
#
# The diagonal is left out of the colour scale, so that the mistakes stand out.

import matplotlib.pyplot as plt
import numpy as np
from sklearn.metrics import ConfusionMatrixDisplay

predicted = network.predict(X_test)
fig, ax = plt.subplots(figsize=(5, 5), layout="constrained")
display = ConfusionMatrixDisplay.from_predictions(y_test, predicted, ax=ax, cmap="Blues", colorbar=False)
mistakes = display.confusion_matrix - np.diag(np.diag(display.confusion_matrix))
display.im_.set(data=mistakes, clim=(0, mistakes.max()))
for (row, column), count in np.ndenumerate(display.confusion_matrix):
    color = "black" if row == column else "white" if count else "lightgray"
    display.text_[row, column].set_color(color)
ax.set_title("Digits: held-out images")
plt.show()

# %%
# The mistakes, and what they rest on
# -----------------------------------
#
# All misclassified images, the most confident mistake first. Below each are the pixels that support the predicted digit
# (red) or speak against it (blue), by integrated gradients. Grad-CAM, the default, is for larger images: it is as
# coarse as the last feature maps, here 2 x 2.

from skdl.display import SaliencyDisplay

wrong = np.flatnonzero(predicted != y_test)
sure = network.predict_proba(X_test[wrong]).max(axis=1)
order = sure.argsort()[::-1]
wrong, sure = wrong[order], sure[order]

fig, axes = plt.subplots(2, len(wrong), figsize=(1.6 * len(wrong), 3.8), squeeze=False, layout="constrained")
for ax, i, p in zip(axes[0], wrong, sure, strict=True):
    ax.imshow(X_test[i], cmap="gray")
    ax.set_title(f"{y_test[i]} taken for {predicted[i]}\n({p:.0%})", fontsize=10)
    ax.set_axis_off()
SaliencyDisplay.from_estimator(
    network, X_test[wrong], method="integrated_gradients", labels=[""] * len(wrong), ax=axes[1], alpha=1
)
plt.show()
