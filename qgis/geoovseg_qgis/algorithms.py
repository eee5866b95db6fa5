"""What can be done from the toolbox; each algorithm is a command of geoovseg and its options."""

from qgis.core import (
    QgsMapLayerType,
    QgsProcessing,
    QgsProcessingAlgorithm,
    QgsProcessingException,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterFolderDestination,
    QgsProcessingParameterMapLayer,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsProcessingParameterString,
    QgsProcessingParameterVectorDestination,
    QgsProcessingParameterVectorLayer,
)
from qgis.PyQt.QtGui import QIcon

from .command import run

METHODS = ("segearth", "clearclip", "sclip", "naclip", "clip", "maskclip", "gem", "resclip", "proxyclip", "reattnclip",
           "coninfer", "direct-op", "direct-mv", "trident", "corrclip", "resegclip", "segearth-ov3",
           "proc-sam3")  # fmt: skip
SHAPES = ["gpkg", "shp", "geojson", "json", "fgb", "kml", "gml", "sqlite", "gdb", "tab", "parquet"]
UPSAMPLE = ("auto", "guided", "bilinear")


class Algorithm(QgsProcessingAlgorithm):
    """A command of geoovseg; what is the same for all."""

    command = ""
    title = ""
    about = ""

    def name(self):
        return self.command

    def displayName(self):  # noqa: N802
        return self.title

    def shortHelpString(self):  # noqa: N802
        return self.about

    def icon(self):
        from .provider import ICON

        return QIcon(ICON)

    def createInstance(self):  # noqa: N802
        return type(self)()

    def put(self, parameter, advanced=False):
        """Take a parameter, among the advanced ones if told."""
        if advanced:
            parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.FlagAdvanced)
        self.addParameter(parameter)

    def raster_file(self, parameters, name, context):
        """The file of a raster layer. Raises QgsProcessingException for one that is no file."""
        layer = self.parameterAsRasterLayer(parameters, name, context)
        if layer is None:
            raise QgsProcessingException(self.invalidRasterError(parameters, name))
        if layer.providerType() != "gdal":
            raise QgsProcessingException(
                f"{layer.name()} is no file but comes from a service; save it as a file first."
            )
        return layer.source().split("|")[0]

    def vector_file(self, parameters, name, context, feedback):
        """File and --layer of a vector layer; what is filtered or no file is written into one first."""
        layer = self.parameterAsVectorLayer(parameters, name, context)
        if layer is None:
            raise QgsProcessingException(self.invalidSourceError(parameters, name))
        formats = [] if layer.subsetString() else SHAPES  # none: a copy of what is left
        path, inside = self.parameterAsCompatibleSourceLayerPathAndLayerName(
            parameters, name, context, formats, "gpkg", feedback
        )
        return [path, "--layer", inside] if inside else [path]

    def text(self, parameters, name, context):
        return self.parameterAsString(parameters, name, context).strip()

    def words(self, parameters, context):
        """Classes as options: words, or a class file."""
        words, file = self.text(parameters, "CLASSES", context), self.parameterAsFile(parameters, "LIST", context)
        if bool(words) == bool(file):
            raise QgsProcessingException("Give the classes either as words, as in building,road,water, or as a file.")
        return ["-c", words] if words else ["--vocabulary", file]

    def asked(self, parameters, context):
        """Options of words: background, threshold, upsampling."""
        found = self.words(parameters, context)
        background = self.text(parameters, "BACKGROUND", context)
        found += ["--background", background] if background else []
        if parameters.get("THRESHOLD") is not None:
            found += ["--threshold", f"{self.parameterAsDouble(parameters, 'THRESHOLD', context):g}"]
        return [*found, "--upsample", UPSAMPLE[self.parameterAsEnum(parameters, "UPSAMPLE", context)]]

    def put_words(self):
        """Parameters of words."""
        self.put(
            QgsProcessingParameterString("CLASSES", "Classes, as in building=house+roof,road,water", optional=True)
        )
        self.put(QgsProcessingParameterFile("LIST", "or a file with a class a line", optional=True))
        self.put(
            QgsProcessingParameterString("BACKGROUND", "Background: auto, none or words joined by +", "auto"), True
        )
        kind = QgsProcessingParameterNumber.Double
        self.put(QgsProcessingParameterNumber("THRESHOLD", "Least confidence", kind, None, True, 0, 1), True)
        self.put(QgsProcessingParameterEnum("UPSAMPLE", "From patches to pixels", UPSAMPLE, defaultValue=0), True)

    def put_labels(self, confidence=True):
        """Parameters of what is written."""
        self.put(QgsProcessingParameterRasterDestination("LABELS", "Labels"))
        given = {"optional": True, "createByDefault": False}
        self.put(QgsProcessingParameterVectorDestination("VECTORS", "Polygons", **given))
        if confidence:
            self.put(QgsProcessingParameterRasterDestination("CONFIDENCE", "Confidence", **given))

    def outputs(self, parameters, context):
        """Options of what is written, and the results by name."""
        labels = self.parameterAsOutputLayer(parameters, "LABELS", context)
        results, options = {"LABELS": labels}, ["-o", labels, "--overwrite"]
        for name in ("VECTORS", "CONFIDENCE"):
            if path := self.parameterAsOutputLayer(parameters, name, context):
                results[name] = path
                options += [f"--{name.lower()}", path]
        return options, results

    def put_model(self):
        """Parameters of the model."""
        self.put(QgsProcessingParameterEnum("METHOD", "Method", METHODS, defaultValue=0))
        self.put(QgsProcessingParameterString("MODEL", "Model", "ViT-B-16/openai"))
        self.put(
            QgsProcessingParameterString("BANDS", "Bands seen as red, green, blue, as in 3,2,1", optional=True), True
        )
        kind = QgsProcessingParameterNumber.Double
        self.put(QgsProcessingParameterNumber("GSD", "Metres a pixel to look with", kind, None, True, 0), True)
        self.put(QgsProcessingParameterString("OPTIONS", "More options, as on the command line", optional=True), True)

    def seen(self, parameters, context):
        """Options of the model."""
        import shlex

        found = ["-m", METHODS[self.parameterAsEnum(parameters, "METHOD", context)]]
        found += ["--model", self.text(parameters, "MODEL", context)]
        if bands := self.text(parameters, "BANDS", context):
            found += ["--bands", bands]
        if parameters.get("GSD") is not None and (gsd := self.parameterAsDouble(parameters, "GSD", context)) > 0:
            found += ["--gsd", f"{gsd:g}"]
        return [*found, *shlex.split(self.text(parameters, "OPTIONS", context))]

    def shown(self, results, context):
        """Have results loaded with the styles that geoovseg lays beside them or into them, and named by their files."""
        for path in results.values():
            if context.willLoadLayerOnCompletion(path):
                details = context.layerToLoadOnCompletionDetails(path)
                details.forceName = False
        return results


class Segment(Algorithm):
    command, title = "segment", "Segment an image by words"
    about = (
        "Labels an image by words, with names and colours. The model looks at the whole image, which takes most of the "
        "time: to ask for several lists of words, encode it first."
    )

    def initAlgorithm(self, configuration=None):  # noqa: N802
        self.put(QgsProcessingParameterRasterLayer("SCENE", "Image"))
        self.put_words()
        self.put_model()
        self.put_labels()

    def processAlgorithm(self, parameters, context, feedback):  # noqa: N802
        scene = self.raster_file(parameters, "SCENE", context)
        options, results = self.outputs(parameters, context)
        run(["segment", scene, *self.asked(parameters, context), *self.seen(parameters, context), *options, "--json",
             "--progress", "json"], feedback)  # fmt: skip
        return self.shown(results, context)


class Encode(Algorithm):
    command, title = "encode", "Keep the features of an image"
    about = "Looks at an image once and keeps what the model saw, so that it is asked for any words in seconds."

    def initAlgorithm(self, configuration=None):  # noqa: N802
        self.put(QgsProcessingParameterRasterLayer("SCENE", "Image"))
        self.put_model()
        self.put(QgsProcessingParameterFolderDestination("FEATURES", "Features, a folder that ends in .zarr"))

    def processAlgorithm(self, parameters, context, feedback):  # noqa: N802
        scene = self.raster_file(parameters, "SCENE", context)
        folder = self.text(parameters, "FEATURES", context)
        folder = folder if folder.endswith(".zarr") else f"{folder}.zarr"
        options = ["-o", folder, "--overwrite", "--json", "--progress", "json"]
        run(["encode", scene, *self.seen(parameters, context), *options], feedback)
        return {"FEATURES": folder}


class Ask(Algorithm):
    command, title = "ask", "Ask kept features for words"
    about = "Labels an image from the features that were kept of it, in seconds and with the same labels."

    def initAlgorithm(self, configuration=None):  # noqa: N802
        folder = QgsProcessingParameterFile.Folder
        self.put(QgsProcessingParameterFile("FEATURES", "Features, a folder that ends in .zarr", folder))
        self.put_words()
        self.put_labels()

    def processAlgorithm(self, parameters, context, feedback):  # noqa: N802
        options, results = self.outputs(parameters, context)
        store = self.parameterAsFile(parameters, "FEATURES", context)
        run(["segment", store, *self.asked(parameters, context), *options, "--json", "--progress", "json"], feedback)
        return self.shown(results, context)


class Vectorize(Algorithm):
    command, title = "vectorize", "Labels to polygons"
    about = "Every connected region becomes a polygon with class, area and perimeter; together they leave no gaps."

    def initAlgorithm(self, configuration=None):  # noqa: N802
        self.put(QgsProcessingParameterRasterLayer("LABELS", "Labels"))
        kind = QgsProcessingParameterNumber.Double
        self.put(QgsProcessingParameterNumber("MIN_AREA", "Merge regions smaller than so many m²", kind, 0, False, 0))
        self.put(QgsProcessingParameterNumber("SIMPLIFY", "Move corners by at most so many metres", kind, 0, False, 0))
        self.put(QgsProcessingParameterVectorDestination("POLYGONS", "Polygons"))

    def processAlgorithm(self, parameters, context, feedback):  # noqa: N802
        target = self.parameterAsOutputLayer(parameters, "POLYGONS", context)
        options = []
        for name in ("MIN_AREA", "SIMPLIFY"):
            if value := self.parameterAsDouble(parameters, name, context):
                options += [f"--{name.lower().replace('_', '-')}", f"{value:g}"]
        labels = self.raster_file(parameters, "LABELS", context)
        run(["vectorize", labels, target, *options, "--overwrite", "--json"], feedback)
        return self.shown({"POLYGONS": target}, context)


class Evaluate(Algorithm):
    command, title = "evaluate", "Compare labels with ground truth"
    about = "IoU, precision, recall and F1 of every class; truth is a raster, or polygons with a column of names."

    def initAlgorithm(self, configuration=None):  # noqa: N802
        self.put(QgsProcessingParameterRasterLayer("LABELS", "Labels"))
        self.put(QgsProcessingParameterMapLayer("TRUTH", "Ground truth"))
        self.put(QgsProcessingParameterString("FIELD", "Column of class names, of polygons", optional=True))
        self.put(QgsProcessingParameterString("MAP", "Other names, as in forest=tree,*=background", optional=True))
        self.put(QgsProcessingParameterFileDestination("FIGURES", "Figures", "JSON (*.json)"))

    def processAlgorithm(self, parameters, context, feedback):  # noqa: N802
        import json

        layer = self.parameterAsLayer(parameters, "TRUTH", context)
        if layer is not None and layer.type() == QgsMapLayerType.VectorLayer:
            truth = self.vector_file(parameters, "TRUTH", context, feedback)
        else:
            truth = [self.raster_file(parameters, "TRUTH", context)]
        options = []
        if field := self.text(parameters, "FIELD", context):
            options += ["--field", field]
        for pair in filter(None, self.text(parameters, "MAP", context).split(",")):
            options += ["--map", pair]
        labels = self.raster_file(parameters, "LABELS", context)
        found = run(["evaluate", labels, *truth, *options, "--json"], feedback)
        for name, figures in found.get("classes", {}).items():
            feedback.pushInfo(f"{name}: IoU {figures['iou']}")
        feedback.pushInfo(f"mIoU {found.get('miou')}")
        path = self.parameterAsFileOutput(parameters, "FIGURES", context)
        with open(path, "w", encoding="utf-8") as file:
            json.dump(found, file)
        return {"FIGURES": path, "MIOU": found.get("miou")}


class Stats(Algorithm):
    command, title = "stats", "Measure classes by zone"
    about = "Hectares and shares of every class in districts, fields or any other polygons."

    def initAlgorithm(self, configuration=None):  # noqa: N802
        self.put(QgsProcessingParameterRasterLayer("LABELS", "Labels"))
        self.put(QgsProcessingParameterVectorLayer("ZONES", "Zones", [QgsProcessing.TypeVectorPolygon]))
        self.put(QgsProcessingParameterVectorDestination("OUTPUT", "Zones with shares"))

    def processAlgorithm(self, parameters, context, feedback):  # noqa: N802
        target = self.parameterAsOutputLayer(parameters, "OUTPUT", context)
        labels = self.raster_file(parameters, "LABELS", context)
        zones, *layer = self.vector_file(parameters, "ZONES", context, feedback)
        run(["stats", labels, zones, target, *layer, "--overwrite", "--json"], feedback)
        return {"OUTPUT": target}


class Sample(Algorithm):
    command, title = "sample", "Draw points to look at"
    about = "Points of a map, by class, whose truth a person fills in; evaluate --points makes areas of them."

    def initAlgorithm(self, configuration=None):  # noqa: N802
        self.put(QgsProcessingParameterRasterLayer("LABELS", "Labels"))
        self.put(QgsProcessingParameterNumber("COUNT", "How many points", defaultValue=300, minValue=1))
        self.put(QgsProcessingParameterNumber("SEED", "Which sample", defaultValue=0, minValue=0), True)
        self.put(QgsProcessingParameterVectorDestination("POINTS", "Points"))

    def processAlgorithm(self, parameters, context, feedback):  # noqa: N802
        target = self.parameterAsOutputLayer(parameters, "POINTS", context)
        labels = self.raster_file(parameters, "LABELS", context)
        count, seed = (self.parameterAsInt(parameters, name, context) for name in ("COUNT", "SEED"))
        run(["sample", labels, target, "-n", str(count), "--seed", str(seed), "--overwrite", "--json"], feedback)
        return self.shown({"POINTS": target}, context)


class Apply(Algorithm):
    command, title = "apply", "Put edited polygons back into labels"
    about = "Pixels in a polygon take its class; the labels stay as they are, and a corrected raster is written."

    def initAlgorithm(self, configuration=None):  # noqa: N802
        self.put(QgsProcessingParameterRasterLayer("LABELS", "Labels"))
        self.put(QgsProcessingParameterVectorLayer("EDITS", "Edited polygons", [QgsProcessing.TypeVectorPolygon]))
        any_field = QgsProcessingParameterField.Any
        self.put(
            QgsProcessingParameterField(
                "FIELD", "Column of class names; default: class_name", None, "EDITS", any_field, False, True
            )
        )
        self.put(QgsProcessingParameterBoolean("OUTSIDE", "Pixels in no polygon become background", False))
        self.put(QgsProcessingParameterRasterDestination("CORRECTED", "Corrected labels"))

    def processAlgorithm(self, parameters, context, feedback):  # noqa: N802
        target = self.parameterAsOutputLayer(parameters, "CORRECTED", context)
        labels = self.raster_file(parameters, "LABELS", context)
        edits = self.vector_file(parameters, "EDITS", context, feedback)
        options = ["--field", self.text(parameters, "FIELD", context) or "class_name"]
        if self.parameterAsBoolean(parameters, "OUTSIDE", context):
            options += ["--outside", "background"]
        run(["apply", labels, *edits, "-o", target, *options, "--overwrite", "--json"], feedback)
        return self.shown({"CORRECTED": target}, context)


ALGORITHMS = (Segment, Encode, Ask, Vectorize, Evaluate, Stats, Sample, Apply)
