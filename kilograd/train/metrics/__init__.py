"""Metrics: functions with scikit-learn's names, and objects that count batch after batch."""

from kilograd.train.metrics.classification import (
    accuracy_score,
    classification_report,
    confusion_matrix,
    f1_score,
    fbeta_score,
    hamming_loss,
    precision_recall_fscore_support,
    precision_score,
    recall_score,
)
from kilograd.train.metrics.metric import FromFunction, Mean, Metric, MetricCollection
from kilograd.train.metrics.ranking import (
    average_precision_score,
    log_loss,
    precision_recall_curve,
    roc_auc_score,
    roc_curve,
    top_k_accuracy_score,
)
from kilograd.train.metrics.regression import (
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    root_mean_squared_error,
)
from kilograd.train.metrics.streamed_classes import (
    Accuracy,
    ConfusionMatrix,
    F1Score,
    FBetaScore,
    Precision,
    Recall,
    TopKAccuracy,
)
from kilograd.train.metrics.streamed_errors import (
    MeanAbsoluteError,
    MeanSquaredError,
    R2Score,
    RootMeanSquaredError,
)
from kilograd.train.metrics.streamed_scores import ROCAUC, AveragePrecision, LogLoss

__all__ = [
    "ROCAUC", "Accuracy", "AveragePrecision", "ConfusionMatrix", "F1Score", "FBetaScore", "FromFunction", "LogLoss",
    "Mean", "MeanAbsoluteError", "MeanSquaredError", "Metric", "MetricCollection", "Precision",
    "R2Score", "Recall", "RootMeanSquaredError", "TopKAccuracy", "accuracy_score",
    "average_precision_score", "classification_report", "confusion_matrix", "f1_score",
    "fbeta_score", "hamming_loss", "log_loss", "mean_absolute_error", "mean_squared_error",
    "precision_recall_curve", "precision_recall_fscore_support", "precision_score", "r2_score",
    "recall_score", "roc_auc_score", "roc_curve", "root_mean_squared_error", "top_k_accuracy_score",
]  # fmt: skip
