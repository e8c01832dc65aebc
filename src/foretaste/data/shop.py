class Simulated: pass
def shop(): pass
