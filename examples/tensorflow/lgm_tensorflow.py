# SPDX-License-Identifier: MIT
"""The L-GM head in TensorFlow, on the CPU: the operations of lgm_tensorflow.cpp as functions with gradients, and a
Keras layer.

    import lgm_tensorflow as lgm
    lgm.load("liblgm_tensorflow.so")
    loss = lgm.lgm_loss(features, labels, mean, alpha=0.3, lambda_=0.1)

features [samples, dims], float32 or float64; labels [samples], whole numbers in [0, classes) (ignore_label: ignored);
mean [classes, dims]; log_variance None (variances of 1), [classes] or [classes, dims]; log_prior None (all classes
alike) or [classes]. alpha and lambda_ are numbers or scalar tensors: a tf.Variable follows a schedule inside a
tf.function. They are settings, and have no gradient.
"""
import keras
import tensorflow as tf

_library = None


def load(library):
    """Loads the operations of a compiled lgm_tensorflow.cpp."""
    global _library
    _library = tf.load_op_library(str(library))


def _operations():
    if _library is None:
        raise RuntimeError("lgm_tensorflow.load(library) comes first")
    return _library


def _prepared(features, mean, log_variance, log_prior):
    """The tensors that all operations begin with; those that are not there are lists without elements."""
    features = tf.convert_to_tensor(features)
    if features.dtype not in (tf.float32, tf.float64):
        raise TypeError(f"features are float32 or float64, not {features.dtype.name}")
    mean = tf.convert_to_tensor(mean, features.dtype)
    optional = [[] if t is None else [tf.convert_to_tensor(t, features.dtype)] for t in (log_variance, log_prior)]
    return features, mean, *optional


def _whole(labels):
    labels = tf.convert_to_tensor(labels)
    if not labels.dtype.is_integer:
        raise TypeError(f"labels are whole numbers, not {labels.dtype.name}")
    return tf.cast(labels, tf.int64)


def _number(value, dtype):
    # tf.cast would round a number of Python's to float32 first.
    return tf.cast(value, dtype) if tf.is_tensor(value) else tf.convert_to_tensor(value, dtype)


def _logits(features, labels, mean, log_variance, log_prior, alpha, ignore_label):
    """Logits, and each sample's likelihood term."""
    features, mean, log_variance, log_prior = _prepared(features, mean, log_variance, log_prior)
    return _operations().lgm_logits(
        features,
        mean,
        log_variance,
        # Without priors nothing is added to a logit.
        log_prior or [tf.zeros(tf.shape(mean)[:1], mean.dtype)],
        [] if labels is None else [labels],
        _number(alpha, features.dtype),
        ignore_label=ignore_label,
    )


def lgm_logits(
    features,
    num_classes,
    labels=None,
    alpha=0.1,
    lambda_=0.01,
    *,
    mean=None,
    log_variance=None,
    log_prior=None,
    ignore_label=-100,
):
    """(logits, likelihood_reg, mean): for a softmax cross entropy, to whose loss likelihood_reg is added.

    With labels, logits have the margin and likelihood_reg is lambda_ times the mean of the samples' likelihood terms,
    those that are ignored left out. Without, there is no margin, and each sample's most likely class stands for its
    label. mean: [num_classes, dims]; in a graph of TensorFlow 1, None is the variable "rbf_centers" of the variable
    scope.
    """
    features = tf.convert_to_tensor(features)
    if mean is None:
        if tf.executing_eagerly() or tf.inside_function():
            raise ValueError("mean is None: only a graph of TensorFlow 1 keeps variables by their names")
        mean = tf.compat.v1.get_variable("rbf_centers", [num_classes, features.shape[1]], features.dtype)
    if mean.shape[0] not in (None, num_classes):
        raise ValueError(f"mean is [num_classes, dims], and {num_classes} classes are not {mean.shape}")
    arguments = mean, log_variance, log_prior
    if labels is not None:
        labels = _whole(labels)
        logits, likelihood = _logits(features, labels, *arguments, alpha, ignore_label)
    else:
        logits, _ = _logits(features, None, *arguments, 0.0, ignore_label)
        labels = tf.argmax(logits, 1)
        _, likelihood = _logits(features, labels, *arguments, 0.0, ignore_label)
    counted = tf.reduce_sum(tf.cast(labels != ignore_label, likelihood.dtype))
    return logits, _number(lambda_, likelihood.dtype) * tf.reduce_sum(likelihood) / counted, mean


def lgm_loss(
    features,
    labels,
    mean,
    alpha=0.1,
    lambda_=0.01,
    *,
    log_variance=None,
    log_prior=None,
    reduction="mean",
    ignore_label=-100,
):
    """The whole loss in one operation, relative to the target, so that small losses keep their digits: a number, or
    with reduction "none" one for each sample ("sum": their sum; "mean": over those that are not ignored).
    """
    features, mean, log_variance, log_prior = _prepared(features, mean, log_variance, log_prior)
    loss, _ = _operations().lgm_loss(
        features,
        mean,
        log_variance,
        log_prior,
        _whole(labels),
        _number(alpha, features.dtype),
        _number(lambda_, features.dtype),
        reduction=reduction,
        ignore_label=ignore_label,
    )
    return loss


def score(features, mean, *, log_variance=None, log_prior=None):
    """What the mixture says of each sample: a dict of all scores of lgm::score_result, [samples] each: predicted (class),
    posterior, log_density (of the predicted class), log_mixture (log p(x)), ... Not differentiated.
    """
    return _operations().lgm_score(*_prepared(features, mean, log_variance, log_prior))._asdict()


tf.no_gradient("LgmScore")


def _inputs(operation):
    """An operation's inputs, as its gradient takes them first, and those after the mixture, without a gradient."""
    inputs, variances, priors = list(operation.inputs), operation.get_attr("variances"), operation.get_attr("priors")
    end = 2 + variances + priors
    return (*inputs[:2], inputs[2 : 2 + variances], inputs[2 + variances : end]), inputs[end:]


def _flat(gradients, others):
    features, mean, log_variance, log_prior = gradients
    return [features, mean, *log_variance, *log_prior] + [None] * len(others)


@tf.RegisterGradient("LgmLogits")
def _logits_gradient(operation, of_logits, of_likelihood):
    mixture, (*labels, alpha) = _inputs(operation)
    gradients = _operations().lgm_logits_grad(
        *mixture, labels, alpha, of_logits, of_likelihood, ignore_label=operation.get_attr("ignore_label")
    )
    return _flat(gradients, (*labels, alpha))


@tf.RegisterGradient("LgmLoss")
def _loss_gradient(operation, of_loss, _):
    mixture, others = _inputs(operation)
    gradients = _operations().lgm_loss_grad(
        *mixture,
        *others,
        operation.outputs[1],
        of_loss,
        ignore_label=operation.get_attr("ignore_label"),
        reduction=operation.get_attr("reduction"),
    )
    return _flat(gradients, others)


@keras.saving.register_keras_serializable(package="lgm")
class LGMHead(keras.layers.Layer):
    """The head of a classifier: logits of features, in place of a Dense layer.

        image, label = keras.Input((28, 28, 1)), keras.Input((), dtype="int64")
        head = LGMHead(10, alpha=0.3, lambda_=0.1)
        model = keras.Model((image, label), head(backbone(image), label))
        model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
        model.fit((images, labels), labels)

    With labels and in training, the logits have the margin and lambda_ times the likelihood is added to the model's
    losses; otherwise they are those of the mixture, and labels are not read: keras.Model(image,
    head(backbone(image))) needs none. covariance is "identity", "spherical" or "diagonal". alpha is a weight that is
    not trained: head.alpha.assign(...), in a callback for one, makes it follow a schedule, and it is saved with the
    others.
    """

    def __init__(
        self,
        num_classes,
        alpha=0.1,
        lambda_=0.01,
        covariance="identity",
        mean_initializer="glorot_uniform",
        ignore_label=-100,
        **kwargs,
    ):
        # Where a policy computes in 16 bits, the head computes in its variables' type.
        policy = keras.dtype_policies.get(kwargs.pop("dtype", None))
        super().__init__(dtype=policy.variable_dtype, **kwargs)
        if covariance not in ("identity", "spherical", "diagonal"):
            raise ValueError(f'covariance is "identity", "spherical" or "diagonal", not {covariance!r}')
        if keras.backend.backend() != "tensorflow":
            raise RuntimeError(f"LGMHead needs Keras on TensorFlow, and this is on {keras.backend.backend()}")
        self.num_classes = num_classes
        self.initial_alpha = alpha
        self.lambda_ = lambda_
        self.covariance = covariance
        self.mean_initializer = keras.initializers.get(mean_initializer)
        self.ignore_label = ignore_label
        self.supports_jit = False

    def build(self, features_shape, labels_shape=None):
        shape = (self.num_classes, features_shape[-1])
        self.mean = self.add_weight(shape, self.mean_initializer, name="mean")
        self.log_variance = None
        if self.covariance != "identity":
            variances = shape if self.covariance == "diagonal" else shape[:1]
            self.log_variance = self.add_weight(variances, "zeros", name="log_variance")
        alpha = keras.initializers.Constant(self.initial_alpha)
        self.alpha = self.add_weight((), alpha, trainable=False, name="alpha")

    def call(self, features, labels=None, training=None):
        if labels is None or not training:
            return _logits(features, None, self.mean, self.log_variance, None, 0.0, self.ignore_label)[0]
        logits, likelihood_reg, _ = lgm_logits(
            features,
            self.num_classes,
            labels,
            self.alpha,
            self.lambda_,
            mean=self.mean,
            log_variance=self.log_variance,
            ignore_label=self.ignore_label,
        )
        self.add_loss(likelihood_reg)
        return logits

    def score(self, features):
        """What the mixture says of each sample; see the function of this name."""
        return score(keras.ops.cast(features, self.variable_dtype), self.mean, log_variance=self.log_variance)

    def get_config(self):
        return {
            **super().get_config(),
            "num_classes": self.num_classes,
            "alpha": self.initial_alpha,
            "lambda_": self.lambda_,
            "covariance": self.covariance,
            "mean_initializer": keras.initializers.serialize(self.mean_initializer),
            "ignore_label": self.ignore_label,
        }
