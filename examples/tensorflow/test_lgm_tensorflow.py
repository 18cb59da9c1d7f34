# SPDX-License-Identifier: MIT
"""usage: LGM_TENSORFLOW_LIBRARY=liblgm_tensorflow.so [LGM_DATA=DIR] pytest test_lgm_tensorflow.py

The head against the same formulas in plain TensorFlow, values and gradients, eager and in graphs; what is wrong; the
Keras layer; and a fit on Fashion-MNIST, whose four files are in LGM_DATA.
"""
import gzip
import math
import os
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import lgm_tensorflow as lgm

SAMPLES, CLASSES, DIMS = 13, 7, 5
IGNORED = 3  # the sample whose label is ignore_label
TOLERANCE = {tf.float64: 1e-12, tf.float32: 1e-5}
DTYPES = list(TOLERANCE)
COVARIANCES = ["identity", "spherical", "diagonal"]
# TensorFlow's own tensors, where Keras makes arrays of them.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning:keras")
InvalidArgument = tf.errors.InvalidArgumentError

lgm.load(os.environ["LGM_TENSORFLOW_LIBRARY"])


# ---- the formulas in plain TensorFlow ----


def demo_logits(features, num_classes, labels, alpha, lambda_, mean):
    """The formula of the authors' demonstration: unit variances, the square expanded."""
    squares = tf.reduce_sum(features**2, 1, keepdims=True) + tf.reduce_sum(mean**2, 1)
    logits = -0.5 * (squares - 2.0 * tf.matmul(features, mean, transpose_b=True))
    if labels is None:
        labels = tf.argmax(logits, 1)
    else:
        logits *= 1.0 + alpha * tf.one_hot(labels, num_classes, dtype=features.dtype)
    samples = tf.cast(tf.shape(features)[0], features.dtype)
    return logits, lambda_ * tf.nn.l2_loss(features - tf.gather(mean, labels)) / samples


def plain_terms(features, labels, mean, log_variance, log_prior, alpha):
    """eq:logit and eq:likelihood as they are written; a label of -100 has neither margin nor likelihood."""
    variance = tf.ones_like(mean) if log_variance is None else tf.exp(log_variance)
    variance = variance if variance.shape.rank == 2 else variance[:, None] * tf.ones_like(mean)
    distance = tf.reduce_sum((features[:, None] - mean) ** 2 / variance, 2) / 2
    half_log_det = tf.reduce_sum(tf.math.log(variance), 1) / 2
    target = tf.one_hot(labels, CLASSES, dtype=features.dtype)
    logits = log_prior - half_log_det - (1 + alpha * target) * distance
    return logits, tf.reduce_sum(target * (distance + half_log_det), 1)


def plain_loss(features, labels, mean, log_variance, log_prior, alpha, lambda_, reduction):
    """eq:loss."""
    log_prior = tf.constant(-math.log(CLASSES), mean.dtype) if log_prior is None else log_prior
    logits, likelihood = plain_terms(features, labels, mean, log_variance, log_prior, alpha)
    counts = labels >= 0
    target = tf.one_hot(labels, CLASSES, dtype=features.dtype)
    classification = tf.reduce_logsumexp(logits, 1) - tf.reduce_sum(target * logits, 1)
    losses = tf.where(counts, classification + lambda_ * likelihood, 0.0)
    if reduction == "none":
        return losses
    return tf.reduce_sum(losses) / (tf.reduce_sum(tf.cast(counts, losses.dtype)) if reduction == "mean" else 1.0)


# ---- problems, and what compares ----


def problem(dtype, covariance="identity", priors=False, ignored=True):
    """(features, labels, mean, log_variance, log_prior)"""
    random = np.random.default_rng(1)
    draw = lambda *shape: tf.constant(random.normal(size=shape), dtype)
    labels = random.integers(0, CLASSES, SAMPLES)
    if ignored:
        labels[IGNORED] = -100
    shape = {"identity": None, "spherical": (CLASSES,), "diagonal": (CLASSES, DIMS)}[covariance]
    features, mean = draw(SAMPLES, DIMS), draw(CLASSES, DIMS)
    log_variance = None if shape is None else 0.3 * draw(*shape)
    return features, tf.constant(labels), mean, log_variance, draw(CLASSES) if priors else None


def near(a, b, tolerance):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape and a.dtype == b.dtype
    assert np.abs(a - b).max(initial=0) <= tolerance * (1 + np.abs(b).max(initial=0))


def with_gradients(function, *sources):
    """The number that function gives, and its gradients, with None for what it does not depend on."""
    sources = [s for s in sources if s is not None]
    with tf.GradientTape() as tape:
        tape.watch(sources)
        value = function()
    return [value, *tape.gradient(value, sources)]


def both_ways(mine, plain, sources, tolerance):
    """Compares values and gradients, at once and as graphs."""
    for way in (lambda f: f, tf.function):
        values = [way(lambda f=f: with_gradients(f, *sources))() for f in (mine, plain)]
        assert all(v is not None for v in values[0])
        for a, b in zip(*values, strict=True):
            near(a, b, tolerance)


# ---- values and gradients ----


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("alpha, lambda_", [(0.1, 0.01), (0.0, 0.0), (1.0, 0.5)])
def test_demo_formula(dtype, labelled, alpha, lambda_):
    features, labels, mean, *_ = problem(dtype, ignored=False)
    labels = labels if labelled else None
    weight = tf.constant(np.random.default_rng(2).normal(size=(SAMPLES, CLASSES)), dtype)

    def loss(logits, likelihood_reg, *_):
        # Gradients of both signs, of both results.
        return tf.reduce_sum(weight * logits) - 1.5 * likelihood_reg

    both_ways(
        lambda: loss(*lgm.lgm_logits(features, CLASSES, labels, alpha, lambda_, mean=mean)),
        lambda: loss(*demo_logits(features, CLASSES, labels, alpha, lambda_, mean)),
        (features, mean),
        TOLERANCE[dtype],
    )
    mine = lgm.lgm_logits(features, CLASSES, labels, alpha, lambda_, mean=mean)
    assert mine[2] is mean
    for a, b in zip(mine, demo_logits(features, CLASSES, labels, alpha, lambda_, mean)):
        near(a, b, TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("priors", [False, True])
def test_logits(dtype, covariance, priors):
    features, labels, mean, log_variance, log_prior = problem(dtype, covariance, priors)
    weight = tf.constant(np.random.default_rng(2).normal(size=(SAMPLES, CLASSES)), dtype)

    def mine():
        logits, likelihood_reg, _ = lgm.lgm_logits(
            features, CLASSES, labels, 0.3, 0.1, mean=mean, log_variance=log_variance, log_prior=log_prior
        )
        return tf.reduce_sum(weight * logits**2) + likelihood_reg

    def plain():
        bias = tf.zeros(CLASSES, dtype) if log_prior is None else log_prior
        logits, likelihood = plain_terms(features, labels, mean, log_variance, bias, 0.3)
        return tf.reduce_sum(weight * logits**2) + 0.1 * tf.reduce_sum(likelihood) / (SAMPLES - 1)

    both_ways(mine, plain, (features, mean, log_variance, log_prior), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("covariance", COVARIANCES)
@pytest.mark.parametrize("priors", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_loss(dtype, covariance, priors, reduction):
    features, labels, mean, log_variance, log_prior = problem(dtype, covariance, priors)
    weight = tf.linspace(tf.constant(-0.5, dtype), 2.0, SAMPLES) if reduction == "none" else -1.5

    def mine():
        loss = lgm.lgm_loss(
            features, labels, mean, 0.3, 0.1, log_variance=log_variance, log_prior=log_prior, reduction=reduction
        )
        return tf.reduce_sum(weight * loss)

    def plain():
        return tf.reduce_sum(
            weight * plain_loss(features, labels, mean, log_variance, log_prior, 0.3, 0.1, reduction)
        )

    both_ways(mine, plain, (features, mean, log_variance, log_prior), TOLERANCE[dtype])


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_score(covariance):
    features, _, mean, log_variance, log_prior = problem(tf.float64, covariance, True)
    scores = lgm.score(features, mean, log_variance=log_variance, log_prior=log_prior)
    arguments = features, None, mean, log_variance
    logits, _ = plain_terms(features, tf.fill(SAMPLES, -1), mean, log_variance, tf.zeros(CLASSES, tf.float64), 0.0)
    density = logits - DIMS / 2 * math.log(2 * math.pi)
    best = tf.argmax(log_prior + density, 1)
    pick = lambda values: tf.gather(values, best, batch_dims=1)
    _, likelihood = plain_terms(features, best, *arguments[2:], tf.zeros(CLASSES, tf.float64), 0.0)
    half_log_det = plain_terms(mean, tf.range(CLASSES), *arguments[2:], tf.zeros(CLASSES, tf.float64), 0.0)[1]
    near(scores["predicted"], best, 0)
    near(scores["posterior"], pick(tf.nn.softmax(log_prior + density)), 1e-12)
    near(scores["log_density"], pick(density), 1e-12)
    near(scores["log_mixture"], tf.reduce_logsumexp(tf.nn.log_softmax(log_prior) + density, 1), 1e-12)
    near(scores["squared_mahalanobis"], 2 * (likelihood - tf.gather(half_log_det, best)), 1e-12)
    log_posterior = tf.nn.log_softmax(log_prior + density)
    near(scores["entropy"], -tf.reduce_sum(tf.exp(log_posterior) * log_posterior, 1), 1e-12)
    assert len(scores) == 7 and tf.reduce_all(scores["nearest_squared_mahalanobis"] <= scores["squared_mahalanobis"])


def test_every_kind_of_label():
    features, labels, mean, *_ = problem(tf.float64, ignored=False)
    expected = lgm.lgm_loss(features, labels, mean)
    for dtype in (tf.uint8, tf.int8, tf.int32, tf.int64):
        near(lgm.lgm_loss(features, tf.cast(labels, dtype), mean), expected, 0)


def test_ignored_samples_may_be_anything():
    features, labels, mean, *_ = problem(tf.float64)
    broken = tf.tensor_scatter_nd_update(features, [[IGNORED]], tf.fill((1, DIMS), tf.constant(np.nan, tf.float64)))
    results = [with_gradients(lambda x=x: lgm.lgm_loss(x, labels, mean), x, mean) for x in (features, broken)]
    for a, b in zip(*results):
        near(a, b, 0)
    assert not np.any(results[1][1][IGNORED])


def test_other_ignore_label():
    features, labels, mean, *_ = problem(tf.float64)
    renamed = tf.where(labels == -100, tf.constant(-1, tf.int64), labels)
    near(lgm.lgm_loss(features, renamed, mean, ignore_label=-1), lgm.lgm_loss(features, labels, mean), 0)
    mine = lgm.lgm_logits(features, CLASSES, renamed, mean=mean, ignore_label=-1)
    for a, b in zip(mine, lgm.lgm_logits(features, CLASSES, labels, mean=mean)):
        near(a, b, 0)


def test_empty_batch():
    _, _, mean, log_variance, log_prior = problem(tf.float64, "diagonal", True)
    features, labels = tf.zeros((0, DIMS), tf.float64), tf.zeros(0, tf.int64)
    more = {"log_variance": log_variance, "log_prior": log_prior}
    assert np.isnan(lgm.lgm_loss(features, labels, mean, **more))
    assert lgm.lgm_loss(features, labels, mean, reduction="none", **more).shape == (0,)
    total, *gradients = with_gradients(
        lambda: lgm.lgm_loss(features, labels, mean, reduction="sum", **more), features, mean, log_variance, log_prior
    )
    assert total == 0 and gradients[0].shape == (0, DIMS) and not any(np.any(g) for g in gradients)
    for z in (labels, None):
        logits, *gradients = with_gradients(lambda z=z: lgm.lgm_logits(features, CLASSES, z, mean=mean)[0], mean)
        assert logits.shape == (0, CLASSES) and not np.any(gradients[0])
    assert lgm.score(features, mean)["predicted"].shape == (0,)


# ---- graphs ----


def test_schedule_without_retracing():
    features, labels, mean, *_ = problem(tf.float64)
    alpha, lambda_ = tf.Variable(0.0), tf.Variable(0.0)
    traces = 0

    @tf.function
    def step():
        nonlocal traces
        traces += 1
        logits, likelihood_reg, _ = lgm.lgm_logits(features, CLASSES, labels, alpha, lambda_, mean=mean)
        return logits, likelihood_reg, lgm.lgm_loss(features, labels, mean, alpha, lambda_)

    for value in (0.0, 0.25, 0.5):
        alpha.assign(value)
        lambda_.assign(value / 2)
        logits, likelihood_reg, loss = step()
        near(loss, plain_loss(features, labels, mean, None, None, value, value / 2, "mean"), 1e-12)
        plain, likelihood = plain_terms(features, labels, mean, None, tf.zeros(CLASSES, tf.float64), value)
        near(logits, plain, 1e-12)
        near(likelihood_reg, value / 2 * tf.reduce_sum(likelihood) / (SAMPLES - 1), 1e-12)
    assert traces == 1


def test_unknown_sizes():
    features, labels, mean, *_ = problem(tf.float32)
    unknown = tf.TensorSpec((None, None)), tf.TensorSpec((None,), tf.int64)

    @tf.function(input_signature=unknown)
    def step(features, labels):
        loss = lgm.lgm_loss(features, labels, mean, reduction="none")
        logits, likelihood_reg, _ = lgm.lgm_logits(features, CLASSES, labels, mean=mean)
        assert loss.shape.as_list() == [None] and logits.shape.as_list() == [None, CLASSES]
        assert likelihood_reg.shape.as_list() == []
        assert all(s.shape.as_list() == [None] for s in lgm.score(features, mean).values())
        return loss, logits

    for n in (SAMPLES, 4, 0, 1):
        loss, logits = step(features[:n], labels[:n])
        near(loss, lgm.lgm_loss(features[:n], labels[:n], mean, reduction="none"), 1e-6)
        assert logits.shape == (n, CLASSES)


def test_many_at_once():
    """Operations that run beside each other, on threads that they share."""
    random = np.random.default_rng(3)
    mean = tf.constant(random.normal(size=(100, 64)), tf.float32)
    batches = [tf.constant(random.normal(size=(300 + n, 64)), tf.float32) for n in range(12)]
    losses = lambda: [lgm.lgm_loss(x, tf.range(len(x)) % 100, mean, reduction="none") for x in batches]
    together = tf.function(losses)
    for _ in range(5):
        for a, b in zip(together(), losses()):
            near(a, b, 0)


def test_graph_of_tensorflow_1():
    """A training loop as the authors wrote theirs."""
    random = np.random.default_rng(4)
    values = random.integers(0, CLASSES, 200)
    data = random.normal(size=(CLASSES, DIMS))[values] + 0.3 * random.normal(size=(200, DIMS))
    v1 = tf.compat.v1
    with tf.Graph().as_default(), v1.Session() as session:
        features = v1.placeholder(tf.float32, (None, DIMS))
        labels = v1.placeholder(tf.int32, (None,))
        with v1.variable_scope("rbf_loss"):
            logits, likelihood_reg, mean = lgm.lgm_logits(features, CLASSES, labels, alpha=0.1, lambda_=0.01)
        with v1.variable_scope("rbf_loss", reuse=True):
            plain, _, same = lgm.lgm_logits(features, CLASSES)
        assert mean.name == same.name == "rbf_loss/rbf_centers:0"
        loss = v1.losses.sparse_softmax_cross_entropy(labels, logits) + likelihood_reg
        step = v1.train.GradientDescentOptimizer(0.5).minimize(loss)
        session.run(v1.global_variables_initializer())
        feed = {features: data, labels: values}
        before = session.run(loss, feed)
        for _ in range(100):
            session.run(step, feed)
        after, predicted = session.run((loss, tf.argmax(plain, 1)), feed)
    assert after < before / 2 and np.mean(predicted == values) > 0.9


# ---- what is wrong ----


def test_refused_labels():
    features, labels, mean, *_ = problem(tf.float64)
    for label in (CLASSES, -1):
        wrong = tf.tensor_scatter_nd_update(labels, [[2]], [label])
        for call in (
            lambda: lgm.lgm_loss(features, wrong, mean),
            lambda: lgm.lgm_logits(features, CLASSES, wrong, mean=mean),
        ):
            for way in (lambda f: f, tf.function):
                with pytest.raises(InvalidArgument, match="a label is outside"):
                    way(call)()
    with pytest.raises(TypeError, match="whole numbers"):
        lgm.lgm_loss(features, tf.cast(labels, tf.float32), mean)


def test_refused_shapes():
    features, labels, mean, log_variance, log_prior = problem(tf.float64, "diagonal", True)
    unknown = [tf.TensorSpec(None, t.dtype) for t in (features, labels, mean, log_variance, log_prior)]

    def call(features, labels, mean, log_variance, log_prior):
        loss = lgm.lgm_loss(features, labels, mean, log_variance=log_variance, log_prior=log_prior)
        logits, _, _ = lgm.lgm_logits(
            features, CLASSES, labels, mean=mean, log_variance=log_variance, log_prior=log_prior
        )
        return loss, logits

    late = tf.function(call, input_signature=unknown)  # nothing is known before it runs
    right = features, labels, mean, log_variance, log_prior
    late(*right)
    for position, wrong in (
        (0, features[:, :3]),
        (0, features[0]),
        (1, labels[:3]),
        (1, labels[0]),
        (2, mean[0]),
        (3, log_variance[:2]),
        (3, log_variance[:3, 0]),
        (3, log_variance[None]),
        (4, mean),
        (4, log_prior[:3]),
    ):
        arguments = list(right)
        arguments[position] = wrong
        with pytest.raises(InvalidArgument, match="lgm: .* are of"):
            late(*arguments)
        with pytest.raises(InvalidArgument):
            call(*arguments)
        with pytest.raises(ValueError):  # as the graph is made
            tf.function(call)(*arguments)


def test_refused_shape_of_alpha():
    features, labels, mean, *_ = problem(tf.float64)
    with pytest.raises(InvalidArgument, match="lgm: alpha is a number"):
        lgm.lgm_loss(features, labels, mean, tf.zeros(2, tf.float64))


def test_refused_arguments():
    features, labels, mean, *_ = problem(tf.float64)
    for alpha, lambda_, match in ((-0.1, 0.0, "alpha"), (math.nan, 0.0, "alpha"), (0.0, -1.0, "lambda")):
        with pytest.raises(InvalidArgument, match=match):
            lgm.lgm_loss(features, labels, mean, alpha, lambda_)
    with pytest.raises(ValueError, match="classes"):
        lgm.lgm_logits(features, CLASSES + 1, labels, mean=mean)
    with pytest.raises(ValueError, match="mean is None"):
        lgm.lgm_logits(features, CLASSES, labels)
    with pytest.raises(Exception, match="reduction"):
        lgm.lgm_loss(features, labels, mean, reduction="median")
    with pytest.raises(TypeError, match="float32 or float64"):
        lgm.lgm_loss(tf.cast(features, tf.bfloat16), labels, tf.cast(mean, tf.bfloat16))


def test_what_is_not_offered():
    features, labels, mean, *_ = problem(tf.float64)
    with pytest.raises(InvalidArgument, match="No registered 'LgmLoss' OpKernel for XLA_CPU_JIT"):
        tf.function(lambda: lgm.lgm_loss(features, labels, mean), jit_compile=True)()
    with tf.GradientTape() as outer:
        outer.watch(features)
        gradient = with_gradients(lambda: lgm.lgm_loss(features, labels, mean), features)[1]
    with pytest.raises(LookupError, match="LgmLossGrad"):
        outer.gradient(gradient, features)


# ---- the Keras layer ----


def small_model(**options):
    image, label = keras.Input((DIMS,)), keras.Input((), dtype="int64")
    head = lgm.LGMHead(CLASSES, **options)
    features = keras.layers.Dense(DIMS, name="backbone")(image)
    model = keras.Model((image, label), head(features, label))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True), jit_compile="auto")
    return model, head


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_layer_computes_the_loss(covariance):
    keras.utils.set_random_seed(1)
    x, z, *_ = problem(tf.float32, ignored=False)
    model, head = small_model(alpha=0.4, lambda_=0.2, covariance=covariance)
    if head.log_variance is not None:
        head.log_variance.assign(keras.random.normal(head.log_variance.shape, stddev=0.3))
    features = model.get_layer("backbone")(x)
    arguments = features, z, tf.convert_to_tensor(head.mean), head.log_variance, None
    expected = plain_loss(*arguments, 0.4, 0.2, "mean")
    near(np.float32(model.train_on_batch((x, z), z)), expected, 1e-5)


def test_layer_in_training_and_after():
    x, z, *_ = problem(tf.float32, ignored=False)
    model, head = small_model(alpha=0.4, lambda_=0.2)
    trained = model((x, z), training=True)
    assert len(model.losses) == 1
    after = model((x, z), training=False)
    assert len(model.losses) == 0
    target = tf.one_hot(z, CLASSES)
    near(trained, after * (1 + 0.4 * target), 1e-5)
    features = model.get_layer("backbone")(x)
    near(head(features), after, 0)
    near(head.score(features)["predicted"], tf.argmax(after, 1), 0)
    assert {w.name for w in head.trainable_weights} == {"mean"}
    with pytest.raises(ValueError, match="covariance"):
        lgm.LGMHead(CLASSES, covariance="full")


def test_layer_follows_a_schedule():
    x, z, *_ = problem(tf.float32, ignored=False)
    model, head = small_model(alpha=0.0)
    seen = []

    class Schedule(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            head.alpha.assign(0.1 * epoch)
            seen.append(float(keras.ops.sum(model((x, z), training=True) / model((x, z), training=False))))

    model.fit((x, z), z, epochs=3, verbose=0, callbacks=[Schedule()])
    near(np.array(seen), np.array([SAMPLES * (CLASSES + 0.1 * n) for n in range(3)]), 1e-5)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_layer_is_saved(covariance, tmp_path):
    x, z, *_ = problem(tf.float32, ignored=False)
    model, head = small_model(alpha=0.4, lambda_=0.2, covariance=covariance, ignore_label=-1, name="head")
    model.fit((x, z), z, verbose=0)
    head.alpha.assign(0.7)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("head").get_config() == head.get_config()
    for training in (False, True):
        near(loaded((x, z), training=training), model((x, z), training=training), 0)
    near(loaded.train_on_batch((x, z), z), model.train_on_batch((x, z), z), 1e-6)


def test_layer_under_mixed_precision():
    x, z, *_ = problem(tf.float32, ignored=False)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model, head = small_model()
        assert model((x, z)).dtype == head.mean.dtype == "float32"
        losses = model.fit((x, z), z, epochs=20, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert losses[-1] < losses[0]


def test_layer_in_float64():
    x, z, *_ = problem(tf.float64, ignored=False)
    head = lgm.LGMHead(CLASSES, alpha=0.4, lambda_=0.2, dtype="float64")
    logits = head(x, z, training=True)
    expected = lgm.lgm_logits(x, CLASSES, z, head.alpha, 0.2, mean=head.mean)
    near(logits, expected[0], 0)
    near(head.losses[0], expected[1], 0)


def read_idx(name):
    folder = pathlib.Path(os.environ.get("LGM_DATA", "/usr/share/datasets/fashion-mnist"))
    with gzip.open(folder / f"{name}-ubyte.gz") as file:
        data = file.read()
    shape = np.frombuffer(data, ">i4", data[3], 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


def test_fashion_mnist():
    keras.utils.set_random_seed(1)
    images = {part: read_idx(f"{part}-images-idx3")[..., None] for part in ("train", "t10k")}
    labels = {part: read_idx(f"{part}-labels-idx1").astype(np.int64) for part in ("train", "t10k")}
    image, label = keras.Input((28, 28, 1)), keras.Input((), dtype="int64")
    x = keras.layers.Rescaling(1 / 255)(image)
    for filters in (16, 32):
        x = keras.layers.Conv2D(filters, 5, strides=2, padding="same", activation="relu")(x)
    x = keras.layers.Dense(64)(keras.layers.Flatten()(x))
    head = lgm.LGMHead(10, alpha=0.1, lambda_=0.01)
    model = keras.Model((image, label), head(x, label))
    model.compile(
        keras.optimizers.Adam(2e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    model.fit((images["train"], labels["train"]), labels["train"], batch_size=128, epochs=2, verbose=0)

    deployed = keras.Model(image, head(x))
    accuracy = np.mean(deployed.predict(images["t10k"], batch_size=1000, verbose=0).argmax(1) == labels["t10k"])
    print(f"Fashion-MNIST: {accuracy:.1%} of the test images")
    assert accuracy > 0.85
