"""Serve the models that `training` publishes, and follow each newer version while requests run:

    curl http://127.0.0.1:8000/training/spirals.csv > spirals.csv
    curl --data-binary @spirals.csv 'http://127.0.0.1:8000/training/trainings?alias=production'
    curl http://127.0.0.1:8000/inference/classifier -H 'content-type: application/json' -d '{"rows": [[0.1, 0.9]]}'

Without a restart, the responses come from the version that the alias `production` names. A training without an alias is
in `staging`: a share of the requests is computed with it, too, and `/dashboard` compares them. Or alone, with the store
of the trainings:

    python -m tinysvc examples/inference --models ./models

    classifier  numpy: the network that `training` fits, one copy for all workers
    filetypes   onnxruntime: a model of another origin, in a session of each worker

These services share no code with `training`: the files of a version are all that they have in common.
"""

from tinysvc import Service

from . import classifier, filetypes

service = Service(
    Service(classifier, name="classifier", prefix="/classifier"),
    Service(filetypes, name="filetypes", prefix="/filetypes"),
)
