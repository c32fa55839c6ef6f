"""The scenes that this engine can paint: add one by writing it and naming it here."""

from gpu_worker.engines.sketch.scenes.botanical import paint_botanical
from gpu_worker.engines.sketch.scenes.city import paint_city
from gpu_worker.engines.sketch.scenes.cosmos import paint_cosmos
from gpu_worker.engines.sketch.scenes.desert import paint_desert
from gpu_worker.engines.sketch.scenes.forest import paint_forest
from gpu_worker.engines.sketch.scenes.interior import paint_interior
from gpu_worker.engines.sketch.scenes.land import paint_mountains
from gpu_worker.engines.sketch.scenes.mesh import paint_mesh
from gpu_worker.engines.sketch.scenes.papercut import paint_papercut
from gpu_worker.engines.sketch.scenes.portrait import paint_portrait
from gpu_worker.engines.sketch.scenes.poster import paint_poster
from gpu_worker.engines.sketch.scenes.sea import paint_coast
from gpu_worker.engines.sketch.scenes.still_life import paint_still_life
from gpu_worker.engines.sketch.scenes.view import Scene

SCENES: dict[str, Scene] = {
    "mountains": paint_mountains,
    "sea": paint_coast,
    "city": paint_city,
    "forest": paint_forest,
    "desert": paint_desert,
    "cosmos": paint_cosmos,
    "botanical": paint_botanical,
    "still_life": paint_still_life,
    "interior": paint_interior,
    "portrait": paint_portrait,
    "mesh": paint_mesh,
    "poster": paint_poster,
    "papercut": paint_papercut,
}
