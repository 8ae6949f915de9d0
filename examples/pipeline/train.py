"""Makes model.json: a perceptron with one hidden layer that tells languages apart by character trigrams.

Standard library only; takes a few seconds. Run it again after changing the sentences:

    python examples/pipeline/train.py
"""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

from preprocess import BUCKETS, trigrams

HIDDEN = 8
EPOCHS = 20
RATE = 2.0

SENTENCES = {
    "english": """
        The weather was cold this morning, but the children went to school with their father.
        She wanted to know whether there was anything left that they could share with the others.
        We have been waiting for the train for more than an hour and nobody knows when it will come.
        Three of the workers were moved to another machine while the others kept working.
        What should be done about the old house at the end of the street?
        I would like a cup of tea and something to read, please.
        Where are my keys? I think that you have put them on the kitchen table.
        He has lived in this town for ten years and knows everyone who works here.
        Our neighbour bought a new car last week, although the old one was not broken.
        They said that nothing would happen, and then the lights went out.
        You should try this bread with a little butter and some honey.
        The brown dog ran through the garden and jumped over the low wall.
        It is not far from here to the nearest shop, just follow the river.
        My brother thinks the film was too long, which is why he fell asleep.
    """,
    "german": """
        Das Wetter war heute Morgen kalt, aber die Kinder gingen mit ihrem Vater zur Schule.
        Sie wollte wissen, ob noch etwas übrig war, das sie mit den anderen teilen konnten.
        Wir warten seit mehr als einer Stunde auf den Zug und niemand weiß, wann er kommt.
        Drei der Arbeiter wurden an eine andere Maschine geschickt, während die anderen weiterarbeiteten.
        Was soll mit dem alten Haus am Ende der Straße geschehen?
        Ich hätte gern eine Tasse Tee und etwas zu lesen, bitte.
        Wo sind meine Schlüssel? Ich glaube, du hast sie auf den Küchentisch gelegt.
        Er wohnt seit zehn Jahren in dieser Stadt und kennt jeden, der hier arbeitet.
        Unser Nachbar hat letzte Woche ein neues Auto gekauft, obwohl das alte nicht kaputt war.
        Sie sagten, dass nichts passieren würde, und dann ging das Licht aus.
        Du solltest dieses Brot mit ein wenig Butter und etwas Honig probieren.
        Der braune Hund lief durch den Garten und sprang über die niedrige Mauer.
        Es ist nicht weit von hier bis zum nächsten Laden, folge einfach dem Fluss.
        Mein Bruder findet, dass der Film zu lang war, deshalb ist er eingeschlafen.
    """,
    "french": """
        Il faisait froid ce matin, mais les enfants sont allés à l'école avec leur père.
        Elle voulait savoir s'il restait quelque chose qu'ils pouvaient partager avec les autres.
        Nous attendons le train depuis plus d'une heure et personne ne sait quand il viendra.
        Trois des ouvriers ont été envoyés à une autre machine pendant que les autres continuaient.
        Que faut-il faire de la vieille maison au bout de la rue ?
        Je voudrais une tasse de thé et quelque chose à lire, s'il vous plaît.
        Où sont mes clés ? Je crois que tu les as mises sur la table de la cuisine.
        Il habite dans cette ville depuis dix ans et connaît tous ceux qui y travaillent.
        Notre voisin a acheté une nouvelle voiture la semaine dernière, bien que l'ancienne marche encore.
        Ils ont dit que rien ne se passerait, et puis la lumière s'est éteinte.
        Tu devrais goûter ce pain avec un peu de beurre et du miel.
        Le chien brun a traversé le jardin en courant et a sauté par-dessus le petit mur.
        Ce n'est pas loin d'ici au magasin le plus proche, il suffit de suivre la rivière.
        Mon frère trouve que le film était trop long, c'est pourquoi il s'est endormi.
    """,
    "spanish": """
        Hacía frío esta mañana, pero los niños fueron a la escuela con su padre.
        Ella quería saber si quedaba algo que pudieran compartir con los demás.
        Llevamos más de una hora esperando el tren y nadie sabe cuándo vendrá.
        Tres de los trabajadores pasaron a otra máquina mientras los demás seguían trabajando.
        ¿Qué se debe hacer con la casa vieja al final de la calle?
        Quisiera una taza de té y algo para leer, por favor.
        ¿Dónde están mis llaves? Creo que las has puesto en la mesa de la cocina.
        Vive en esta ciudad desde hace diez años y conoce a todos los que trabajan aquí.
        Nuestro vecino compró un coche nuevo la semana pasada, aunque el viejo no estaba roto.
        Dijeron que no pasaría nada, y entonces se apagó la luz.
        Deberías probar este pan con un poco de mantequilla y algo de miel.
        El perro marrón corrió por el jardín y saltó por encima del muro bajo.
        No está lejos de aquí la tienda más cercana, solo hay que seguir el río.
        Mi hermano cree que la película era demasiado larga, por eso se durmió.
    """,
}


def main(path: Path) -> None:
    """Train on every sentence and on the phrases in it, then write the model to `path`."""
    random.seed(1)
    labels = list(SENTENCES)
    examples = [
        (trigrams(part), labels.index(label))
        for label, sentences in SENTENCES.items()
        for sentence in sentences.strip().splitlines()
        for part in _phrases(sentence)
    ]
    hidden = [[random.gauss(0, 0.1) for _ in range(HIDDEN)] for _ in range(BUCKETS)]
    output = [[random.gauss(0, 0.3) for _ in range(HIDDEN)] for _ in labels]
    for _ in range(EPOCHS):
        random.shuffle(examples)
        for features, label in examples:
            _step(hidden, output, features, label)
    rounded = {
        "labels": labels,
        "hidden": [[round(weight, 2) for weight in row] for row in hidden],
        "output": [[round(weight, 2) for weight in row] for row in output],
    }
    path.write_text(json.dumps(rounded, separators=(",", ":")) + "\n")


def _phrases(sentence: str, words: int = 5) -> list[str]:
    """The sentence and each run of five words in it."""
    split = sentence.split()
    return [sentence, *(" ".join(split[at : at + words]) for at in range(max(1, len(split) - words + 1)))]


def _step(
    hidden: list[list[float]], output: list[list[float]], features: dict[str, float], label: int
) -> None:
    """One step of gradient descent on the cross entropy of one example."""
    used = [(hidden[int(bucket)], share) for bucket, share in features.items()]
    units = [math.tanh(sum(row[unit] * share for row, share in used)) for unit in range(HIDDEN)]
    raw = [sum(w * unit for w, unit in zip(row, units, strict=True)) for row in output]
    powers = [math.exp(value - max(raw)) for value in raw]
    errors = [power / sum(powers) - (index == label) for index, power in enumerate(powers)]
    back = [
        sum(error * row[unit] for error, row in zip(errors, output, strict=True)) * (1 - units[unit] ** 2)
        for unit in range(HIDDEN)
    ]
    for error, row in zip(errors, output, strict=True):
        for unit in range(HIDDEN):
            row[unit] -= 0.1 * error * units[unit]
    for row, share in used:
        for unit in range(HIDDEN):
            row[unit] -= RATE * share * back[unit]


if __name__ == "__main__":
    main(Path(__file__).with_name("model.json"))
